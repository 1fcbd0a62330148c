# E6: a homeserver of today neither polls nor answers. What it pushed is good for a while; ours who are not offline are told again.
config federation.plain_refresh = 60s
config federation.plain_promise = 90s
servers a b(foreign)
@john:a on PHONE starts for 1h
@john:a on PHONE online
@mary:a on DESK online
@john:a lists @alice:b
@mary:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a online active, @mary:a online active; invite @john:a for @alice:b; invite @mary:a for @alice:b
b sends a push @alice:b online
advance 80s
    11.0s to @john:a: @alice:b online since 1s
    27.4s a → b: push @mary:a online active
    43.4s a → b: push @john:a online active
    64.4s a → b: push @john:a online since 64s
    69.4s a → b: push @mary:a offline since 69s
b sends a push @alice:b online
advance 30s
    91.0s to @john:a: @alice:b online since 1s
    103.4s a → b: push @john:a online since 103s
@mary:a on DESK offline
advance 80s
    163.4s a → b: push @john:a online since 163s
    181.0s to @john:a: @alice:b unknown
@john:a reads list
    @alice:b asked unknown, known for 110s
