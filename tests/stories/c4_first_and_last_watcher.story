# C4, E1: the first user who watches brings the poll, the second nothing; the first to leave nothing, the last the unpoll.
config list.accept = everyone
servers a b
@john:a lists @alice:b
@mary:a lists @alice:b
advance 30s
    4.4s a → b: push @john:a offline, @mary:a offline; invite @john:a for @alice:b; invite @mary:a for @alice:b
    9.0s b → a: unpoll @john:a, @mary:a; accept @john:a by @alice:b; accept @mary:a by @alice:b
@john:a on PHONE starts for 1h
advance 10s
    34.4s a → b: poll @alice:b
    39.0s b → a: push @alice:b offline
@mary:a on DESK starts for 1h
advance 10s
    40.1s to @john:a: @alice:b offline
    41.0s to @mary:a: @alice:b offline
@john:a on PHONE stops
advance 40s
@mary:a on DESK stops
advance 10s
    99.0s b → a: reminder (mine 1, yours 0)
advance 50s
    103.4s a → b: answer
    124.4s a → b: unpoll @alice:b
