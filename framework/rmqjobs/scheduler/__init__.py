"""The scheduler: publishes ticks that happen once, whatever dies. Floor 6.

`catalogue` gathers schedules, `plan` decides what is due (pure), `standby` waits for the token, `active` is one time of holding
it, `alarms` watches for successes, `commands` answers what the mailbox is asked, `service` is the process.
"""
