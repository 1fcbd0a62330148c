# W4, E3: any request of a peer resets the short watchdog, also one that has nothing to do with presence.
servers a b(foreign)
@john:a on PHONE online
@john:a on PHONE starts for 1h
@john:a lists @alice:b
advance 10s
    4.4s a → b: push @john:a online active; invite @john:a for @alice:b
b sends a poll @john:a
advance 50s
    14.4s a → b: push @john:a online active
b sends a anything
advance 50s
    64.4s a → b: push @john:a online since 64s
b sends a anything
advance 50s
b sends a anything
# Silence: a minute later it is reminded, in the way of those that do not speak rollcall.
advance 66s
    224.4s a → b: push @john:a online since 224s; reminder (mine 1)
