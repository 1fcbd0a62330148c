# What the first implementation of this protocol was tested for, and no other story tells: a never-seen user who comes and goes;
# ages that go on with the clock; a poll that is answered at once and later, an unpoll that ends it.
servers a b(foreign)
@john:a lists @alice:b
@john:a on PHONE starts for 1h
advance 10s
    4.4s a → b: push @john:a offline; invite @john:a for @alice:b
b sends a accept @john:a by @alice:b
advance 10s
    14.4s a → b: poll @alice:b
b sends a push @alice:b offline
advance 2s
    21.0s to @john:a: @alice:b offline since 1s
b sends a push @alice:b online
advance 2s
    23.0s to @john:a: @alice:b online since 1s
@john:a reads list
    @alice:b accepted online since 2s, known for 2s
advance 20s
@john:a reads list
    @alice:b accepted online since 22s, known for 22s
b sends a poll @john:a
advance 10s
    48.4s a → b: push @john:a offline
@john:a on PHONE online
advance 10s
    58.4s a → b: push @john:a online active
b sends a unpoll @john:a
@john:a on PHONE busy
advance 20s
b sends a deny @john:a by @alice:b
advance 10s
    85.0s to @john:a: @alice:b unknown
    88.4s a → b: unpoll @alice:b
@john:a reads list
    nobody
