# W6: a reminder of the peer's resets the long watchdog, to the link's own moment of the next period. b talks all the time, so the
# short one never expires.
# (Reminders come 100 s before the time is over.)
config watchdog.short = 60s
config watchdog.long = 220s
servers a b(foreign)
@john:a on PHONE busy
@john:a on PHONE starts for 1h
@john:a allows @alice:b
b sends a poll @john:a
b sends a query @john:a
advance 45s
    4.4s a → b: push @john:a busy active; accept @alice:b by @john:a
b sends a anything
advance 45s
    64.4s a → b: push @john:a busy since 64s
    79.4s a → b: reminder (mine 1, yours 0)
b sends a anything
# Not answered: again after the short time, though b was heard.
advance 45s
b sends a anything
advance 45s
    144.4s a → b: reminder (mine 1, yours 0)
b sends a anything
# Now b reminds: it is answered, and ours comes at its moment, no sooner.
advance 20s
b sends a reminder
advance 45s
    204.4s a → b: answer
b sends a anything
advance 45s
b sends a anything
advance 45s
    319.4s a → b: reminder (mine 1, yours 0)
b sends a anything
advance 45s
# One that comes before that moment ends the asking, and puts off nothing more.
b sends a reminder
advance 45s
    384.4s a → b: reminder (mine 1, yours 0); answer
b sends a anything
advance 45s
    439.4s a → b: reminder (mine 1, yours 0)
