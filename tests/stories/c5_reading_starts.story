# C4, C5: a client that asks for the list starts polling by that, for as long as a session that nobody renews, and the linger.
config list.accept = everyone
servers a b
@john:a lists @alice:b
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 30s
    4.4s a → b: push @john:a offline; invite @john:a for @alice:b
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
# Seen from outside nothing starts.
@john:a reads list
    @alice:b accepted unknown
advance 20s
@john:a on PHONE reads list
    @alice:b accepted unknown
advance 20s
    54.4s a → b: poll @alice:b
    59.0s b → a: push @alice:b online active
    64.0s b → a: push @alice:b online since 64s
@john:a on PHONE reads list
    @alice:b accepted online since 69s, known for 5s
advance 10s
# Read twice, polled once; two minutes after the second time the session ends.
advance 3m
    119.0s b → a: reminder (mine 1, yours 0)
    123.4s a → b: answer
    184.4s a → b: reminder (mine 0, yours 1)
    188.0s b → a: answer
    224.4s a → b: unpoll @alice:b
