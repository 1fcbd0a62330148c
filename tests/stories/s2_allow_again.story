# S2, E2: whom the user refuses is shown nothing, though listed; whom the user then allows again is shown everything, as by the list.
servers a b(foreign)
@john:a on PHONE online
@john:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
@john:a denies @alice:b
@john:a on PHONE busy
advance 10s
    14.4s a → b: deny @alice:b by @john:a
@john:a allows @alice:b
advance 10s
    24.4s a → b: push @john:a online active; accept @alice:b by @john:a
@john:a on PHONE online
advance 10s
    34.4s a → b: push @john:a online active
