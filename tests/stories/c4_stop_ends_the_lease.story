# C4, C2: who stops is there for no longer than anybody else who was heard of last then, whatever the lease was.
config presence.offline_after = 1m
servers a b(foreign)
@john:a lists @alice:b
@john:a on PHONE busy
@john:a on PHONE starts for 1h
advance 2m
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
    64.4s a → b: push @john:a online since 64s
@john:a on PHONE stops
advance 2m
    189.4s a → b: push @john:a offline since 189s
