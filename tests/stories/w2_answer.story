# W2, S3: one message asks for everybody, one answers for everybody, and more follow: the answer is a promise.
servers a b
@john:a lists @alice:b @bob:b @carol:b
@alice:b lists @john:a
@bob:b lists @john:a
@carol:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline, @bob:b offline, @carol:b offline; invite @alice:b for @john:a; invite @bob:b for @john:a; invite @carol:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b, @bob:b, @carol:b; invite @john:a for @alice:b; invite @john:a for @bob:b; invite @john:a for @carol:b; accept @alice:b by @john:a; accept @bob:b by @john:a; accept @carol:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b; accept @john:a by @bob:b; accept @john:a by @carol:b
@alice:b on LAPTOP online
@bob:b on PHONE busy
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 10s
    34.4s a → b: poll @alice:b, @bob:b, @carol:b
    39.0s b → a: push @alice:b online active, @bob:b busy active, @carol:b offline
@carol:b on WEB online
advance 10s
    40.1s to @john:a: @alice:b online active, @bob:b busy active, @carol:b offline
    44.0s b → a: push @carol:b online active
    45.1s to @john:a: @carol:b online active
