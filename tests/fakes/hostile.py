"""Texts that try to be an option, a command, a line of a configuration or a path outside."""

from __future__ import annotations

CANARY = "/tmp/walt-owned"
HOSTILE = [
    "-x", "--help", "-", "--", f"-oProxyCommand=touch {CANARY}", f"--upload-pack=touch {CANARY}",
    f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY};", f"| touch {CANARY}",
    f"a\ntouch {CANARY}\n", "a\0b", "'", '"', "\\", f"'; touch {CANARY}; '",
    f'"; touch {CANARY}; "', "../../etc/passwd", "..", "/etc/passwd", "@/etc/passwd", "a b", "a\tb",
    "a,readonly=on", "a=b", "{ }", "}; drop; {", "%n", "${IFS}", "$HOME", "*", "~root", "#", "!",
    f"ext::sh -c 'touch {CANARY}'", "fd::17", "file:///etc", "a" * 4097, "é", "\u202eevil", "𝟙",
    "١", "a\u2028b", "a\r\nb", "\x1b[2J", "", " ", "' OR 1=1; DROP TABLE logs; --",
    "name; } host x { filename \"/x\"", "\ud800",
]
