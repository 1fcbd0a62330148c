# W1, W2, E2, S3: on first appearance one message carries the new status and the request; one message answers.
servers a b
@john:a lists @alice:b @bob:b
@jane:a lists @bob:b
@alice:b lists @john:a
@bob:b lists @john:a @jane:a
advance 30s
@alice:b on LAPTOP online
@bob:b on PHONE online
advance 10s
@john:a on PHONE online
@john:a on PHONE starts for 1h
@jane:a on DESK online
@jane:a on DESK starts for 1h
advance 10s
