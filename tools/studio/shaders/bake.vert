#version 330
in vec3 rest; in vec2 uv; in vec4 at;
out vec3 R; out vec2 U; out vec4 A;
void main() { R = rest; U = uv; A = at; gl_Position = vec4(uv * 2. - 1., 0, 1); }
