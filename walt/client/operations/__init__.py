"""What commands and scripts do: functions that return values, and neither print nor ask.

`walt.client.commands` gives them a voice on a terminal, `walt.client.scripting` is the Python
API; both stand on these. Calls go over the connection that they are given
(`walt.client.calls.Calls`).
"""
