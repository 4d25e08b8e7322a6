"""One model on one task by the method's recipe, and the folder that holds what came out."""
