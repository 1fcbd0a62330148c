# S3: the same for a user who lists nobody there and has but allowed somebody to see them: a poll brings the status of now and all
# later ones, an unpoll ends them.
config list.accept = ask
servers a b(foreign)
@john:a on PHONE online
@john:a on PHONE starts for 1h
@john:a allows @alice:b
advance 10s
    4.4s a → b: accept @alice:b by @john:a
b sends a poll @john:a
advance 10s
    14.4s a → b: push @john:a online active
@john:a on PHONE busy
advance 10s
    24.4s a → b: push @john:a online active
@john:a on PHONE unavailable
advance 10s
    34.4s a → b: push @john:a unavailable since 4s
b sends a unpoll @john:a
advance 10s
@john:a on PHONE online
advance 10s
