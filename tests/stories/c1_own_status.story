# C1: whoever sets a status reads it, text and all; the text goes when it is cleared.
servers a
@john:a on PHONE online "cupcakes"
@john:a reads @john:a
    online active "cupcakes"
@john:a on PHONE unavailable
@john:a reads @john:a
    unavailable since 0s "cupcakes"
@john:a on PHONE online ""
@john:a reads @john:a
    online active
@mary:a reads @john:a
    forbidden
