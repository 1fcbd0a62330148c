# C2: what one device says does not flicker while another is active.
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
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 10s
    44.4s a → b: push @john:a online active; poll @alice:b
    45.4s to @alice:b: @john:a online active
    49.0s b → a: push @alice:b online active
@john:a on DESK idle 10m
advance 30s
    50.1s to @john:a: @alice:b online active
@john:a on PHONE unavailable
advance 30s
    84.4s a → b: push @john:a unavailable since 4s
    85.4s to @alice:b: @john:a unavailable since 5s
    94.0s b → a: push @alice:b online since 64s
    95.1s to @john:a: @alice:b online since 65s
