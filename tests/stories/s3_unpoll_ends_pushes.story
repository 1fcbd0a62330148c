# S3: an unpoll ends the pushes, also of users with whom nothing else is shared.
servers a b(foreign)
@john:a lists @alice:b
@john:a on PHONE online
advance 10s
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
b sends a poll @john:a
advance 10s
    14.4s a → b: push @john:a online active
@john:a on PHONE unavailable
advance 10s
    24.4s a → b: push @john:a unavailable since 4s
b sends a unpoll @john:a
advance 10s
@john:a on PHONE busy
advance 10s
