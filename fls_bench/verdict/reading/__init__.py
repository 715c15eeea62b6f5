"""The regime read from measurements of one trained net, by a model that was fitted on the atlas."""
