"""Plain modules with value nodes in them: ordinary networks until a rule looks at them."""
