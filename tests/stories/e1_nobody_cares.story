# E1, C4: nobody is polled for a user who has no session that cares.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@alice:b on LAPTOP online
@john:a on PHONE online
advance 5m
@john:a on PHONE starts for 10m
advance 20s
    334.4s a → b: poll @alice:b
    339.0s b → a: push @alice:b offline since 309s
    340.1s to @john:a: @alice:b offline since 310s
@john:a on PHONE stops
advance 1m
    384.4s a → b: unpoll @alice:b
@alice:b on LAPTOP busy
advance 5m
