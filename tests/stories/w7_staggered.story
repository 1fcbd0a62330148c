# W7: the long watchdogs of different links expire at different times, though all were reset at once.
config watchdog.short = 15m
config watchdog.long = 30m
servers a b c d
@john:a lists @alice:b @carol:c @dora:d
@alice:b lists @john:a
@carol:c lists @john:a
@dora:d lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.2s d → a: push @dora:d offline; invite @dora:d for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    4.4s a → c: push @john:a offline; invite @john:a for @carol:c
    4.4s a → d: push @john:a offline; unpoll @dora:d; invite @john:a for @dora:d; accept @dora:d by @john:a
    4.6s c → a: push @carol:c offline; unpoll @john:a; accept @john:a by @carol:c; invite @carol:c for @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
    9.2s d → a: unpoll @john:a; accept @john:a by @dora:d
    9.4s a → c: unpoll @carol:c; accept @carol:c by @john:a
@john:a on PHONE starts for 1h
advance 40m
    34.4s a → b: poll @alice:b
    34.4s a → c: poll @carol:c
    34.4s a → d: poll @dora:d
    38.6s c → a: push @carol:c offline
    39.0s b → a: push @alice:b offline
    39.2s d → a: push @dora:d offline
    39.6s to @john:a: @alice:b offline, @carol:c offline, @dora:d offline
    332.4s a → d: reminder (mine 0, yours 1)
    334.0s b → a: reminder (mine 1, yours 0)
    337.2s d → a: answer
    338.4s a → b: answer
    379.4s a → b: reminder (mine 0, yours 1)
    384.0s b → a: answer
    510.2s d → a: reminder (mine 1, yours 0)
    514.4s a → d: answer
    738.6s c → a: reminder (mine 1, yours 0)
    743.4s a → c: answer
    875.4s a → c: reminder (mine 0, yours 1)
    879.6s c → a: answer
    1232.4s a → d: reminder (mine 0, yours 1)
    1234.0s b → a: reminder (mine 1, yours 0)
    1237.2s d → a: answer
    1238.4s a → b: answer
    1279.4s a → b: reminder (mine 0, yours 1)
    1284.0s b → a: answer
    1410.2s d → a: reminder (mine 1, yours 0)
    1414.4s a → d: answer
    1638.6s c → a: reminder (mine 1, yours 0)
    1643.4s a → c: answer
    1775.4s a → c: reminder (mine 0, yours 1)
    1779.6s c → a: answer
    2132.4s a → d: reminder (mine 0, yours 1)
    2134.0s b → a: reminder (mine 1, yours 0)
    2137.2s d → a: answer
    2138.4s a → b: answer
    2179.4s a → b: reminder (mine 0, yours 1)
    2184.0s b → a: answer
    2310.2s d → a: reminder (mine 1, yours 0)
    2314.4s a → d: answer
