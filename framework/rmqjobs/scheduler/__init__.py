"""The scheduler: publishes ticks that happen once, whatever dies. Floor 6.

`catalogue` gathers schedules, `plan` decides purely what is due, `standby` waits for the token, `active` is one time of holding
it, `alarms` watches for successes, `commands` is what the mailbox can be asked for, `service` the process.
"""
