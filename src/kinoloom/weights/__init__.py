"""Where are the weights of models, are they whole, and how do they get here? Never needs torch."""
