# E6: a promise of ours ends after twice its time, if the peer asked for nothing meanwhile.
config watchdog.short = 10s
config watchdog.long = 30s
servers a b(foreign)
@john:a on PHONE online
@john:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
b sends a poll @john:a
advance 10s
    14.4s a → b: push @john:a online active
    19.4s a → b: push @john:a online active; reminder (mine 1)
@john:a on PHONE busy
advance 10s
    24.4s a → b: push @john:a online active
link a b silent
advance 2m
    34.4s a → b: push @john:a online active; reminder (mine 1)
link a b up
@john:a on PHONE online
advance 1m
# It may ask again at any time.
b sends a poll @john:a
advance 10s
    214.4s a → b: push @john:a online active
    219.4s a → b: push @john:a offline since 69s
