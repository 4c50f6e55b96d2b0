"""The models as users of other libraries would write them."""
