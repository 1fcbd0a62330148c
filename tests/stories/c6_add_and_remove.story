# C6: adding somebody polls them, removing them ends it and tells their server.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@alice:b on LAPTOP online
@john:a on PHONE starts for 1h
advance 10s
    34.4s a → b: poll @alice:b
    39.0s b → a: push @alice:b online active
@john:a drops @alice:b
advance 10s
    40.1s to @john:a: @alice:b unknown
    44.4s a → b: unpoll @alice:b
@john:a reads list
    nobody
@alice:b on LAPTOP unavailable
advance 10s
