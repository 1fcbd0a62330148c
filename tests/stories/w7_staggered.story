# W7: the long watchdogs of different links expire at different times, though all were reset at once.
config watchdog.short = 15m
config watchdog.long = 30m
servers a b c d
@john:a lists @alice:b @carol:c @dora:d
@alice:b lists @john:a
@carol:c lists @john:a
@dora:d lists @john:a
advance 30s
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.6s c → a: push @carol:c offline; invite @carol:c for @john:a
    4.6s d → a: push @dora:d offline; invite @dora:d for @john:a
    4.7s a → c: push @john:a offline; unpoll @carol:c; invite @john:a for @carol:c; accept @carol:c by @john:a
    4.8s a → d: push @john:a offline; unpoll @dora:d; invite @john:a for @dora:d; accept @dora:d by @john:a
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.5s c → a: unpoll @john:a; accept @john:a by @carol:c
    9.6s d → a: unpoll @john:a; accept @john:a by @dora:d
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE starts for 1h
advance 40m
    34.7s a → c: poll @carol:c
    34.8s a → d: poll @dora:d
    34.9s a → b: poll @alice:b
    39.5s c → a: push @carol:c offline
    39.6s d → a: push @dora:d offline
    39.6s b → a: push @alice:b offline
    40.5s to @john:a: @alice:b offline, @carol:c offline, @dora:d offline
    332.8s a → d: reminder (mine 0, yours 1)
    334.6s b → a: reminder (mine 1, yours 0)
    337.6s d → a: answer
    339.6s a → b: answer
    379.9s a → b: reminder (mine 0, yours 1)
    384.6s b → a: answer
    510.6s d → a: reminder (mine 1, yours 0)
    515.6s a → d: answer
    738.6s c → a: reminder (mine 1, yours 0)
    743.5s a → c: answer
    875.7s a → c: reminder (mine 0, yours 1)
    880.5s c → a: answer
    1232.8s a → d: reminder (mine 0, yours 1)
    1234.6s b → a: reminder (mine 1, yours 0)
    1237.6s d → a: answer
    1239.6s a → b: answer
    1279.9s a → b: reminder (mine 0, yours 1)
    1284.6s b → a: answer
    1410.6s d → a: reminder (mine 1, yours 0)
    1415.6s a → d: answer
    1638.6s c → a: reminder (mine 1, yours 0)
    1643.5s a → c: answer
    1775.7s a → c: reminder (mine 0, yours 1)
    1780.5s c → a: answer
    2132.8s a → d: reminder (mine 0, yours 1)
    2134.6s b → a: reminder (mine 1, yours 0)
    2137.6s d → a: answer
    2139.6s a → b: answer
    2179.9s a → b: reminder (mine 0, yours 1)
    2184.6s b → a: answer
    2310.6s d → a: reminder (mine 1, yours 0)
    2315.6s a → d: answer
