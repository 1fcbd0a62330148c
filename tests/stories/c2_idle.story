# C2: one message says since when a device is idle, the rest is inferred; a later one cancels it.
servers a b
@alice:b lists @john:a
@john:a lists @alice:b
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 10s
    34.0s b → a: poll @john:a
    38.4s a → b: push @john:a offline
    39.4s to @alice:b: @john:a offline
@john:a on DESK online
@john:a on DESK starts for 1h
advance 10s
    44.4s a → b: push @john:a online active; poll @alice:b
    45.4s to @alice:b: @john:a online active
    49.0s b → a: push @alice:b online active
# Idle for four minutes already: at five it counts.
@john:a on DESK idle 4m
advance 90s
    50.1s to @john:a: @alice:b online active
    54.4s a → b: push @john:a online since 14s
    55.4s to @alice:b: @john:a online since 15s
    94.0s b → a: push @alice:b online since 64s
    95.1s to @john:a: @alice:b online since 65s
    119.0s b → a: reminder (mine 1, yours 1)
    119.4s a → b: push @john:a unavailable since 79s; answer
    120.4s to @alice:b: @john:a unavailable since 80s
@john:a on DESK back
advance 10s
    144.4s a → b: push @john:a online active
    145.4s to @alice:b: @john:a online active
