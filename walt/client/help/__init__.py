"""The pager of `walt help show`: pages read (parse), laid out (render), shown (pager, screen).

Nothing here is imported unless that command runs on a terminal.
"""
