# E4, W8: who changes again and again is told of at once for as long as that costs little. Then what changes waits, and leaves within
# a minute of the last time; who has not changed for long waits for nobody. (Of sixty partitions each may spend one entry a minute.)
config partitions = 60
config presence.repeats = 1
servers a b
@john:a lists @alice:b
@jane:a lists @alice:b
@alice:b lists @john:a @jane:a
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 90s
    4.0s b → a: push @alice:b online active; invite @alice:b for @jane:a; invite @alice:b for @john:a
    4.4s a → b: push @jane:a offline, @john:a online active; unpoll @alice:b; invite @jane:a for @alice:b; invite @john:a for @alice:b; accept @alice:b by @jane:a; accept @alice:b by @john:a
    9.0s b → a: poll @jane:a, @john:a; accept @jane:a by @alice:b; accept @john:a by @alice:b
    13.4s a → b: push @jane:a offline, @john:a online active; poll @alice:b
    14.4s to @alice:b: @jane:a offline, @john:a online active
    18.0s b → a: push @alice:b online active
    19.1s to @john:a: @alice:b online active
    64.0s b → a: push @alice:b online since 64s
    64.4s a → b: push @john:a online since 64s
    65.1s to @john:a: @alice:b online since 65s
    65.4s to @alice:b: @john:a online since 65s
@john:a on PHONE online "one"
advance 6s
    94.4s a → b: push @john:a online active "one"
    95.4s to @alice:b: @john:a online active "one"
@john:a on PHONE busy "two"
advance 6s
@john:a on PHONE online "three"
advance 6s
@john:a on PHONE busy "four"
advance 6s
@john:a on PHONE online "five"
advance 6s
@john:a on PHONE busy "six"
@jane:a on DESK online "hello"
advance 6s
    124.4s a → b: push @jane:a online active "hello"
    125.4s to @alice:b: @jane:a online active "hello"
@john:a on PHONE online "seven"
advance 60s
    129.4s a → b: reminder (mine 2, yours 1)
    134.0s b → a: answer
    146.4s a → b: push @john:a online active "seven"
    147.4s to @alice:b: @john:a online active "seven"
