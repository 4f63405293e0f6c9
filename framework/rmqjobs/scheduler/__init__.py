"""The scheduler: publishes ticks that happen once, whatever dies. Floor 6.

`catalogue` gathers schedules, `plan` decides purely what is due, `active` is one time of holding the token, `commands` what
the mailbox can be asked for, `watch` alarms and pings, `service` the process.
"""
