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
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.7s a → c: push @john:a offline; invite @john:a for @carol:c
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
    14.6s a → b: poll @alice:b
    19.3s b → a: push @alice:b offline
    20.3s to @john:a: @alice:b offline
@john:a reads list
    @alice:b accepted offline, known for 10s
    @carol:c asked unknown
c sends a push @carol:c online
@john:a reads list
    @alice:b accepted offline, known for 10s
    @carol:c asked online since 0s
