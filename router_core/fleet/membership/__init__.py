"""Where workers come from: the membership sources, and the roster that turns their lists into joins and leaves."""
