# S1, S2: the one asked for decides; until then the entry is not accepted and nothing is shown.
config list.accept = ask
servers a b
@alice:b on LAPTOP online
@john:a on PHONE starts for 10m
@john:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a offline; invite @john:a for @alice:b
    9.0s b → a: unpoll @john:a
@john:a reads list
    @alice:b asked unknown
@john:a reads @alice:b
    forbidden
@alice:b reads requests
    @john:a asks
@alice:b allows @john:a
advance 20s
    14.0s b → a: accept @john:a by @alice:b
    18.4s a → b: poll @alice:b
    23.0s b → a: push @alice:b online active
    24.1s to @john:a: @alice:b online active
@john:a reads list
    @alice:b accepted online active, known for 6s
@alice:b reads requests
    nobody
# Later revoked: at once, and the entry is gone.
@alice:b denies @john:a
advance 10s
    34.0s b → a: deny @john:a by @alice:b
    35.1s to @john:a: @alice:b unknown
    38.4s a → b: unpoll @alice:b
@john:a reads list
    nobody
@alice:b on LAPTOP busy
advance 10s
