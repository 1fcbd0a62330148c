# W3, W5, E7: the long watchdog expires though the peer talks all the time.
# It reminds 100 s before its time is over, a short period and eight windows: what is found is mended by then.
config watchdog.short = 60s
config watchdog.long = 220s
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.6s b → a: poll @john:a
    34.9s a → b: push @john:a online active; poll @alice:b
    35.9s to @alice:b: @john:a online active
    39.6s b → a: push @alice:b online active
    40.6s to @john:a: @alice:b online active
@alice:b on LAPTOP online "one"
@john:a on PHONE online "one"
advance 50s
    54.6s b → a: push @alice:b online active "one"
    54.9s a → b: push @john:a online active "one"
    55.7s to @john:a: @alice:b online active "one"
    55.9s to @alice:b: @john:a online active "one"
    79.9s a → b: reminder (mine 1, yours 1)
    84.6s b → a: answer
@alice:b on LAPTOP online "two"
@john:a on PHONE online "two"
advance 50s
    104.6s b → a: push @alice:b online active "two"
    104.9s a → b: push @john:a online active "two"
    105.7s to @john:a: @alice:b online active "two"
    105.9s to @alice:b: @john:a online active "two"
@alice:b on LAPTOP online "three"
@john:a on PHONE online "three"
advance 50s
    154.6s b → a: push @alice:b online active "three"; reminder (mine 1, yours 1)
    154.9s a → b: push @john:a online active "three"; answer
    155.7s to @john:a: @alice:b online active "three"
    155.9s to @alice:b: @john:a online active "three"
    199.9s a → b: reminder (mine 1, yours 1)
@alice:b on LAPTOP online "four"
@john:a on PHONE online "four"
advance 50s
    204.6s b → a: push @alice:b online active "four"; answer
    204.8s a → b: push @john:a online active "four"
    205.6s to @john:a: @alice:b online active "four"
    205.8s to @alice:b: @john:a online active "four"
