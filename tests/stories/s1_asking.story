# S1, S2: the one asked for decides; until then the entry is not accepted and nothing is shown.
config list.accept = ask
servers a b
@alice:b on LAPTOP online
@john:a on PHONE starts for 10m
@john:a lists @alice:b
advance 10s
    4.9s a → b: push @john:a offline; invite @john:a for @alice:b
    9.6s b → a: unpoll @john:a
@john:a reads list
    @alice:b asked unknown
@john:a reads @alice:b
    forbidden
@alice:b reads requests
    @john:a asks
@alice:b allows @john:a
advance 20s
    14.6s b → a: accept @john:a by @alice:b
    19.6s a → b: poll @alice:b
    24.3s b → a: push @alice:b online active
    25.4s to @john:a: @alice:b online active
@john:a reads list
    @alice:b accepted online active, known for 5s
@alice:b reads requests
    nobody
# Later revoked: at once, and the entry is gone.
@alice:b denies @john:a
advance 10s
    34.6s b → a: deny @john:a by @alice:b
    35.7s to @john:a: @alice:b unknown
    39.6s a → b: unpoll @alice:b
@john:a reads list
    nobody
@alice:b on LAPTOP busy
advance 10s
