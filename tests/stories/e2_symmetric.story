# E2, W1: listing somebody shows oneself: the status travels with the question, and later ones follow unasked.
servers a b(foreign)
@john:a on PHONE online
@john:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
@john:a on PHONE busy "on the phone"
advance 10s
    14.4s a → b: push @john:a online active "on the phone"
b sends a accept @john:a by @alice:b
advance 10s
# Whoever then appears pushes and asks in one message.
@john:a on PHONE online ""
@john:a on PHONE starts for 10m
advance 10s
    34.4s a → b: push @john:a online active; poll @alice:b
b sends a push @alice:b online
advance 5s
    41.0s to @john:a: @alice:b online since 1s
