# W8: what somebody set, idleness that was inferred and a client that timed out leave in one message.
config presence.idle_after = 60s
config presence.offline_after = 55s
servers a b(foreign)
@john:a lists @alice:b
@jane:a lists @alice:b
@mary:a lists @alice:b
@jane:a on DESK online
@jane:a on DESK starts for 10m
@mary:a on WEB online
advance 10s
    4.4s a → b: push @jane:a online active, @john:a offline, @mary:a online active; invite @jane:a for @alice:b; invite @john:a for @alice:b; invite @mary:a for @alice:b
b sends a poll @john:a
b sends a poll @jane:a
b sends a poll @mary:a
advance 15s
    14.4s a → b: push @jane:a online active, @john:a offline, @mary:a online active
# Idle for half of the time already.
@jane:a on DESK idle 30s
advance 33s
    29.4s a → b: push @jane:a online since 29s
b sends a anything
@john:a on PHONE busy
advance 15s
    62.4s a → b: push @jane:a unavailable since 62s, @john:a online active, @mary:a offline since 62s
# What Jane does counts at once, and joins what John sets.
@jane:a on DESK back
@john:a on PHONE online
advance 10s
    77.4s a → b: push @jane:a online active, @john:a online active
