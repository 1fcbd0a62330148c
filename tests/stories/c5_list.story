# C5: the list shows whom, whether they agreed, and what is known; nothing known is not the same as offline.
servers a b c(foreign)
@john:a lists @alice:b @carol:c
@john:a reads list
    @alice:b asked unknown
    @carol:c asked unknown
@alice:b lists @john:a
@alice:b on LAPTOP offline
@john:a on PHONE starts for 10m
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    4.4s a → c: push @john:a offline; invite @john:a for @carol:c
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
    13.4s a → b: poll @alice:b
    18.0s b → a: push @alice:b offline
    19.1s to @john:a: @alice:b offline
@john:a reads list
    @alice:b accepted offline, known for 11s
    @carol:c asked unknown
c sends a push @carol:c online
@john:a reads list
    @alice:b accepted offline, known for 11s
    @carol:c asked online since 0s
