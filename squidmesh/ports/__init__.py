"""What the rules need from the world, as protocols with numbered promises."""
