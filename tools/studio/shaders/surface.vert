#version 330
in vec3 pos; in vec3 nrm; in vec3 rest; in vec2 uv; in vec2 wt; in vec4 at;
uniform mat4 bone[3]; uniform mat4 VP; uniform mat4 LVP; uniform float inflate;
out vec3 P; out vec3 N; out vec3 R; out vec2 U; out vec4 A; out vec4 S;
void main() {
    mat4 m = bone[0] * wt.x + bone[1] * wt.y + bone[2] * (1. - wt.x - wt.y);
    vec4 w = m * vec4(pos, 1);
    w /= w.w;
    N = mat3(m) * nrm;
    P = w.xyz + inflate * normalize(N);
    R = rest; U = uv; A = at;
    S = LVP * vec4(P, 1);
    gl_Position = VP * vec4(P, 1);
}
