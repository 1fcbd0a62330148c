# W1, E1: whom nobody at the peer wants to see any longer it is not told of; then a first appearance is the request alone.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@alice:b on LAPTOP online
advance 10s
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 10s
    44.4s a → b: poll @alice:b
    49.0s b → a: push @alice:b online active
