# W3, W5, E7: the long watchdog expires though the peer talks all the time.
# It reminds 100 s before its time is over, a short period and eight windows: what is found is mended by then.
config watchdog.short = 60s
config watchdog.long = 220s
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.0s b → a: poll @john:a
    34.4s a → b: push @john:a online active; poll @alice:b
    35.4s to @alice:b: @john:a online active
    39.0s b → a: push @alice:b online active
    40.1s to @john:a: @alice:b online active
@alice:b on LAPTOP online "one"
@john:a on PHONE online "one"
advance 50s
    54.0s b → a: push @alice:b online active "one"
    54.4s a → b: push @john:a online active "one"
    55.1s to @john:a: @alice:b online active "one"
    55.4s to @alice:b: @john:a online active "one"
    79.4s a → b: reminder (mine 1, yours 1)
    84.0s b → a: answer
@alice:b on LAPTOP online "two"
@john:a on PHONE online "two"
advance 50s
    104.0s b → a: push @alice:b online active "two"
    104.4s a → b: push @john:a online active "two"
    105.1s to @john:a: @alice:b online active "two"
    105.4s to @alice:b: @john:a online active "two"
@alice:b on LAPTOP online "three"
@john:a on PHONE online "three"
advance 50s
    154.0s b → a: push @alice:b online active "three"; reminder (mine 1, yours 1)
    154.4s a → b: push @john:a online active "three"; answer
    155.1s to @john:a: @alice:b online active "three"
    155.4s to @alice:b: @john:a online active "three"
    199.4s a → b: reminder (mine 1, yours 1)
@alice:b on LAPTOP online "four"
@john:a on PHONE online "four"
advance 50s
    204.0s b → a: push @alice:b online active "four"; answer
    204.4s a → b: push @john:a online active "four"
    205.1s to @john:a: @alice:b online active "four"
    205.4s to @alice:b: @john:a online active "four"
