# S2: a policy may answer for everybody.
config list.accept = everyone
servers a b
@john:a lists @alice:b
advance 20s
    4.4s a → b: push @john:a offline; invite @john:a for @alice:b
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a reads list
    @alice:b accepted unknown
