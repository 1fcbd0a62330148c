# W3, W5, W6: a minute of silence brings a reminder; its answer, and whoever gets one, has both watchdogs reset: one a minute in all.
config watchdog.long = 2h
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.6s b → a: poll @john:a
    34.9s a → b: push @john:a online active; poll @alice:b
    35.9s to @alice:b: @john:a online active
    39.6s b → a: push @alice:b online active
    40.6s to @john:a: @alice:b online active
advance 5m
    94.6s b → a: push @alice:b online since 64s
    94.9s a → b: push @john:a online since 64s
    95.7s to @john:a: @alice:b online since 65s
    95.9s to @alice:b: @john:a online since 65s
    159.6s b → a: reminder (mine 1, yours 1)
    159.9s a → b: reminder (mine 1, yours 1); answer
    164.3s b → a: answer
    224.6s b → a: reminder (mine 1, yours 1)
    229.6s a → b: answer
    289.9s a → b: reminder (mine 1, yours 1)
    294.6s b → a: answer
