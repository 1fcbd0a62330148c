# W3, W5, W6: a minute of silence brings a reminder; its answer, and whoever gets one, has both watchdogs reset: one a minute in all.
config watchdog.long = 2h
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.0s b → a: poll @john:a
    34.4s a → b: push @john:a online active; poll @alice:b
    35.4s to @alice:b: @john:a online active
    39.0s b → a: push @alice:b online active
    40.1s to @john:a: @alice:b online active
advance 5m
    94.0s b → a: push @alice:b online since 64s
    94.4s a → b: push @john:a online since 64s
    95.1s to @john:a: @alice:b online since 65s
    95.4s to @alice:b: @john:a online since 65s
    159.0s b → a: reminder (mine 1, yours 1)
    159.4s a → b: answer
    224.0s b → a: reminder (mine 1, yours 1)
    224.4s a → b: answer
    289.0s b → a: reminder (mine 1, yours 1)
    289.4s a → b: answer
