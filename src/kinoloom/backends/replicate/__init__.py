"""What makes clips on Replicate, where each model brings the form of what it takes?"""
