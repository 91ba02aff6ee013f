"""How does Kinoloom look to a client of OpenAI's videos API?"""
