# W2b, P1: what arrives is pushed to the user's clients, gathered again: one update an observer.
servers a b
@john:a lists @alice:b @bob:b @mary:a
@alice:b lists @john:a
@bob:b lists @john:a
@mary:a lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline, @bob:b offline; invite @alice:b for @john:a; invite @bob:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b, @bob:b; invite @john:a for @alice:b; invite @john:a for @bob:b; accept @alice:b by @john:a; accept @bob:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b; accept @john:a by @bob:b
@john:a on PHONE starts for 1h
advance 15s
    31.0s to @john:a: @mary:a offline
    34.4s a → b: poll @alice:b, @bob:b
    39.0s b → a: push @alice:b offline, @bob:b offline
    40.1s to @john:a: @alice:b offline, @bob:b offline
@alice:b on LAPTOP online
@bob:b on PHONE busy
advance 10s
    49.0s b → a: push @alice:b online active, @bob:b busy active
    50.1s to @john:a: @alice:b online active, @bob:b busy active
@mary:a on DESK online
@mary:a on DESK busy "soon"
advance 10s
    56.0s to @john:a: @mary:a busy active "soon"
@john:a on PHONE stops
advance 1m
    99.0s b → a: reminder (mine 2, yours 0)
    99.4s a → b: unpoll @alice:b, @bob:b; answer
@mary:a on DESK unavailable
advance 10s
