# C4, E1: nobody is polled without a session that cares; the last one gone, the poll ends after clients.linger.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@alice:b on LAPTOP online
advance 10s
@john:a on PHONE starts for 10m
advance 10s
    44.4s a → b: poll @alice:b
    49.0s b → a: push @alice:b online active
# A second session says nothing to anybody.
@john:a on DESK starts for 10m
advance 10s
    50.1s to @john:a: @alice:b online active
@john:a on PHONE stops
advance 40s
    99.0s b → a: push @alice:b offline since 69s
# A reconnect within the linger says nothing to peers; what became known meanwhile waits for it.
@john:a on DESK stops
advance 20s
    109.0s b → a: reminder (mine 1, yours 0)
    113.4s a → b: answer
@john:a on DESK starts for 10m
advance 20s
    121.0s to @john:a: @alice:b offline since 90s
@john:a on DESK stops
advance 60s
    174.4s a → b: unpoll @alice:b; reminder (mine 0, yours 0)
    178.0s b → a: answer
