"""The imperative shell: it carries facts between the rules, the ports and the step bodies."""
