# S3: an answer now, and no more: who queries gets the status of now, once, without promise.
servers a b(foreign)
@john:a on PHONE online
@john:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
b sends a unpoll @john:a
@john:a on PHONE busy
advance 10s
b sends a query @john:a
advance 10s
    24.4s a → b: push @john:a busy active
@john:a on PHONE online
advance 20s
