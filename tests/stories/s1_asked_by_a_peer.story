# S1, S2: the question of a peer's user waits for the one asked; nothing is shown until there is an answer, which is kept.
config list.accept = ask
servers a b(foreign)
@john:a on PHONE online
b sends a invite @alice:b for @john:a
@john:a reads requests
    @alice:b asks
b sends a poll @john:a
advance 10s
@john:a allows @alice:b
@john:a reads requests
    nobody
advance 10s
    14.4s a → b: push @john:a online active; accept @alice:b by @john:a
# Asked once more, it is answered at once.
b sends a invite @alice:b for @john:a
advance 10s
    24.4s a → b: accept @alice:b by @john:a
@john:a reads requests
    nobody
